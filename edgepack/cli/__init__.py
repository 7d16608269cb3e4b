"""The commands: parse, call the library, render. One error handler; no power that the library lacks."""
