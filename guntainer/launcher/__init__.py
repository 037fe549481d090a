"""The supervisor's end of the fork helper: `spawn` starts it, `client` asks it to launch."""
