"""What pytest leaves alone here: a target of the fuzzer, which needs a package of its own."""

collect_ignore = ["fuzz_target.py"]
