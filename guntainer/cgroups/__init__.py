"""Control groups, version 2: our own part of the tree, a group for each container that has limits, and what it has used.

    <delegated>/                    the group that we were started in, or a scope that systemd's user manager made for us
      guntainer-supervisors/        every guntainer that works here: a group with controllers may hold no process itself
      guntainer-<run>/              one run's or batch's
        <number>/                   one container; it is cloned straight into it, and removed after it

Loaded only where limits are asked for. Raises HostError with the controller's name, and what to do.
"""
