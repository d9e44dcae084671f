"""Alembic's entry: runs on the connection that studio.store.engine.migrate hands over."""

from alembic import context

from studio.store.models import Base
from studio.store.models.base import UtcDateTime


def render_item(kind: str, item: object, _autogen_context: object) -> str | bool:
    """Migrations name plain SQLAlchemy types, so that old ones still run when the models change."""
    return "sa.DateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    render_item=render_item,
)
with context.begin_transaction():
    context.run_migrations()
