import pytest
from nginx.proxy import SECRET
@pytest.mark.parametrize("way", ["x-accel", "auth-request"])
async def test_spike(open_behind, store, way):
    async with open_behind(way, store, changes={}) as g:
        data = bytes(range(256)) * 1000
        key = "a +%'()/Zażółć 🎵 %2F ?#.pdf"
        store.put(key, data)
        t = g.token(key)
        async with g.client.get(f"{g.direct}/d/{t}") as r:
            print("DIRECT", r.status, dict(r.headers)); assert await r.read() == data
        for h in ({}, {"Range": "bytes=5-9"}, {"Range": "bytes=5-9,20-30"}, {"Range":"bytes=5-9","If-Range":'"x"'}, {"Range":"bytes=999999999-"}):
            async with g.client.get(f"{g.base}/d/{t}", headers=h) as r:
                body = await r.read()
                print(way, h, r.status, len(body), list(r.headers.items()))
        async with g.client.head(f"{g.base}/d/{t}") as r: print("HEAD", r.status, list(r.headers.items()))
        async with g.client.get(f"{g.base}/d/xx", headers={"Accept":"text/html"}) as r: print("REFUSED", r.status, list(r.headers.items()), (await r.text())[:300])
        print(*[str({k: e.get(k) for k in ("type","front","http.response.status_code","bytes.asked","counted","outcome","reason")}) for e in await g.events()], sep="\n")
        print(g.nginx.access_log.read_text())
