"""The command line: parse, call one library function, print. No other package imports it."""
