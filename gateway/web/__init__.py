"""The aiohttp front door, and the supervisor with its management listener."""
