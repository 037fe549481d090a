"""`guntainer doctor`: tries on this host what a run needs, one probe after the other, and says how to mend what fails.

    probes       what there is to try, in order, and what needs what
    examine      runs probes, each in a throw-away process with a bound of time
    finding      what came of a probe
    distribution the remedies' words: which package manager, which package
    kernel, namespaces, ids, storage, programs, limits    the probes themselves

Nothing that a probe makes is left behind: namespaces end with its process, folders are the examiner's and removed by it.
"""
