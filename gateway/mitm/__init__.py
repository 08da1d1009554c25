"""The mitmproxy door: the gateway's policy as a plugin of mitmproxy, in front of the bucket. It holds no policy."""
