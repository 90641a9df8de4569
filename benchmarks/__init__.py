"""What sendengine can do, in numbers: ``python -m benchmarks NAME``, or ``all``.

Every figure that is compared with another was measured beside it, in turn, in one run: on a shared machine absolute
times mean nothing. Loopback only.
"""
