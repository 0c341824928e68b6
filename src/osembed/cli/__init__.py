"""The command line: parse, call one library function, print. Nobody imports it."""
