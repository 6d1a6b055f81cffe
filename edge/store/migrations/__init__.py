"""The store's schema, step by step (Alembic). `open_store` goes up by itself, in one transaction, before it reads.

A step is one file in `versions/`, numbered; it is never edited once released. Down goes only by hand, on a copy: stop
the edge, `warren edge backup`, then with the newer Warren still installed

    warren.edge.store.migrate.downgrade(connection, "0001")

and install the older one. What only the newer schema can hold is lost; so the safer way back is the backup that was
made before the upgrade.
"""
