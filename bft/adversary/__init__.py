"""Replicas and clients that lie: crimes, the language in which they are combined, and how they get into a replica.

A crime is a function of `bft.adversary.crimes`; an expression such as `forge() & to("odd")` combines it with conditions
(`bft.adversary.parse`). The simulator (`bft campaign run --crime ...`) and `bft replica run --adversary ...` take
expressions. For a cluster inside a program, `bft.adversary.live` makes of one what `LocalCluster.corrupt` takes:

    from random import Random

    import trio

    import bft
    from bft.adversary.live import Corruption
    from bft.services.kv import KeyValue

    async def main():
        async with bft.local_cluster() as local, bft.connect(local.cluster, key=local.client_key) as client:
            await local.corrupt(1, Corruption("wrong_reply() & equivocate()", me=1, n=4, random=Random(7)))
            kv = client.service(KeyValue)
            await kv.put("greeting", "hello")
            print(await kv.get("greeting"))  # hello: replica 1 lies to no avail

    trio.run(main)
"""
