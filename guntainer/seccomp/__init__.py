"""The filter of system calls that a container's command runs under: seccomp(2). `cache.program` is the door.

    default.json   the profile that every container has unless it is told otherwise
    profile        reads a profile, ours or a user's, and says of each mistake where it stands
    emulation      the calls that succeed without doing anything where one id is mapped
    names          the numbers of system calls, as libseccomp knows them
    verdicts       what a filter says of each call, per architecture
    bpf            lays that out as a short program of the kernel's
    cache          programs that were compiled before: the warm path, which imports none of the others

libseccomp knows the names of the calls on every architecture. The program is laid out here: what libseccomp generates of
the same rules is some five times as long, and the kernel reads, checks and translates it anew for every container.
"""
