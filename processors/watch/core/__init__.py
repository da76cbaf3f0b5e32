"""The watch's rules: facts and a time in, findings out. No I/O, no clock, no asyncio."""
