"""For `mitmdump -s gateway/mitm/addon.py --mode reverse:http://gateway.invalid --set gateway_config=gateway.yaml`."""

from __future__ import annotations

from gateway.mitm.alone import Loader

addons = [Loader()]
