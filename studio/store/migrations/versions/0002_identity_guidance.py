"""How strongly a generation was guided towards its portraits; earlier ones were not.

There is no way down: a backup of the data folder is the way back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # a plain ALTER TABLE: a table that SQLite builds anew would take the rows that refer to it along when it is dropped
    op.add_column("generations", sa.Column("identity_guidance", sa.Double(), server_default="1", nullable=False))
