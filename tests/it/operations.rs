//! `docs/operations.md` is true: its table of metrics is that of the program, and each alert has its advice.
