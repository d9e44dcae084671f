"""The first tables.

There is no way down: a backup of the data folder is the way back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "annotators",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column(
            "origin",
            sa.Enum(
                "typed",
                "login",
                "huggingface",
                "simulated",
                "imported",
                name="annotatororigin_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotators")),
        sa.UniqueConstraint("name", "origin", name=op.f("uq_annotators_name_origin")),
    )
    op.create_table(
        "media",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("suffix", sa.String(length=16), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("added_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_media")),
    )
    op.create_table(
        "preferences",
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_preferences")),
    )
    op.create_table(
        "consents",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("given_by", sa.String(length=32), nullable=True),
        sa.Column("given_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["given_by"], ["annotators.id"], name=op.f("fk_consents_given_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consents")),
    )
    op.create_table(
        "people",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("owner_id", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["annotators.id"], name=op.f("fk_people_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
    )
    with op.batch_alter_table("people", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_people_owner_id"), ["owner_id"], unique=False)

    op.create_table(
        "prompts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column(
            "task",
            sa.Enum("group", "child", name="task_known", native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.Column("scene_words", sa.String(), nullable=False),
        sa.Column(
            "origin",
            sa.Enum(
                "template",
                "written",
                "edited",
                "imported",
                name="promptorigin_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("author_id", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["author_id"], ["annotators.id"], name=op.f("fk_prompts_author_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompts")),
    )
    with op.batch_alter_table("prompts", schema=None) as batch_op:
        batch_op.create_index("ix_prompts_history", ["author_id", "last_used_at"], unique=False)

    op.create_table(
        "rounds",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("bundle", sa.String(length=200), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "collecting",
                "training",
                "evaluating",
                "promoted",
                "candidate",
                "rejected",
                "failed",
                "cancelled",
                name="roundstate_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "request",
            sa.Enum(
                "run",
                "pause",
                "cancel",
                name="roundrequest_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("parent_adapter_id", sa.String(length=32), nullable=True),
        sa.Column("requested_by", sa.String(length=32), nullable=True),
        sa.Column("lease_owner", sa.String(length=200), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("checkpoint_path", sa.String(), nullable=True),
        sa.Column("log_path", sa.String(), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("snapshot_at", sa.DateTime(), nullable=True),
        sa.Column("data_deleted_at", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["requested_by"], ["annotators.id"], name=op.f("fk_rounds_requested_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
        sa.UniqueConstraint("number", name=op.f("uq_rounds_number")),
    )
    with op.batch_alter_table("rounds", schema=None) as batch_op:
        batch_op.create_index("ix_rounds_state", ["state", "created_at"], unique=False)

    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("guidelines", sa.String(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("gold_share", sa.Double(), nullable=False),
        sa.Column("repeat_share", sa.Double(), nullable=False),
        sa.Column("lease_seconds", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("open", "closed", name="sessionstate_known", native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.Column("created_by", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["annotators.id"], name=op.f("fk_sessions_created_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    op.create_table(
        "adapters",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("bundle", sa.String(length=200), nullable=False),
        sa.Column("parent_id", sa.String(length=32), nullable=True),
        sa.Column("round_id", sa.String(length=32), nullable=True),
        sa.Column("media_sha256", sa.String(length=64), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("evaluation", sa.JSON(none_as_null=True), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "candidate",
                "promoted",
                "rejected",
                "broken",
                name="adapterstate_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("promoted_at", sa.DateTime(), nullable=True),
        sa.Column("data_deleted_at", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["media_sha256"], ["media.sha256"], name=op.f("fk_adapters_media_sha256")),
        sa.ForeignKeyConstraint(["parent_id"], ["adapters.id"], name=op.f("fk_adapters_parent_id")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_adapters_round_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adapters")),
    )
    with op.batch_alter_table("adapters", schema=None) as batch_op:
        batch_op.create_index("ix_adapters_bundle", ["bundle", "created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_adapters_media_sha256"), ["media_sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_adapters_round_id"), ["round_id"], unique=False)

    op.create_table(
        "portraits",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("person_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column(
            "origin",
            sa.Enum(
                "upload", "example", name="portraitorigin_known", native_enum=False, create_constraint=True, length=16
            ),
            nullable=False,
        ),
        sa.Column("picture_sha256", sa.String(length=64), nullable=False),
        sa.Column("crop_sha256", sa.String(length=64), nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=True),
        sa.Column("box", sa.JSON(), nullable=False),
        sa.Column("landmarks", sa.JSON(), nullable=False),
        sa.Column("embedding_bytes", sa.LargeBinary(), nullable=True),
        sa.Column("face_pack", sa.String(length=100), nullable=True),
        sa.Column("detection_score", sa.Double(), nullable=True),
        sa.Column("hints", sa.JSON(), nullable=False),
        sa.Column("consent_id", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint("origin = 'example' OR consent_id IS NOT NULL", name=op.f("ck_portraits_consent_given")),
        sa.ForeignKeyConstraint(["consent_id"], ["consents.id"], name=op.f("fk_portraits_consent_id")),
        sa.ForeignKeyConstraint(["crop_sha256"], ["media.sha256"], name=op.f("fk_portraits_crop_sha256")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_portraits_person_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["picture_sha256"], ["media.sha256"], name=op.f("fk_portraits_picture_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_portraits")),
    )
    with op.batch_alter_table("portraits", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_portraits_crop_sha256"), ["crop_sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_portraits_person_id"), ["person_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_portraits_picture_sha256"), ["picture_sha256"], unique=False)

    op.create_table(
        "prompt_people",
        sa.Column("prompt_id", sa.String(length=32), nullable=False),
        sa.Column("person_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name=op.f("fk_prompt_people_person_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name=op.f("fk_prompt_people_prompt_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("prompt_id", "person_id", name=op.f("pk_prompt_people")),
    )
    with op.batch_alter_table("prompt_people", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_prompt_people_person_id"), ["person_id"], unique=False)

    op.create_table(
        "round_steps",
        sa.Column("round_id", sa.String(length=32), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_round_steps_round_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("round_id", "step", name=op.f("pk_round_steps")),
    )
    op.create_table(
        "activations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("bundle", sa.String(length=200), nullable=False),
        sa.Column("adapter_id", sa.String(length=32), nullable=True),
        sa.Column("by_id", sa.String(length=32), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_activations_adapter_id")),
        sa.ForeignKeyConstraint(["by_id"], ["annotators.id"], name=op.f("fk_activations_by_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activations")),
    )
    with op.batch_alter_table("activations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_activations_adapter_id"), ["adapter_id"], unique=False)
        batch_op.create_index("ix_activations_bundle", ["bundle", "id"], unique=False)

    op.create_table(
        "generations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column(
            "purpose",
            sa.Enum(
                "studio",
                "evaluation",
                "training",
                "imported",
                name="purpose_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "task",
            sa.Enum("group", "child", name="task_known", native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.Column("prompt_id", sa.String(length=32), nullable=False),
        sa.Column("schedule", sa.String(length=100), nullable=False),
        sa.Column("schedule_mode", sa.String(length=16), nullable=False),
        sa.Column("strength", sa.Double(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("guidance", sa.Double(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("seeds", sa.JSON(), nullable=False),
        sa.Column("bundle", sa.String(length=200), nullable=False),
        sa.Column("bundle_revision", sa.String(length=100), nullable=False),
        sa.Column("adapter_id", sa.String(length=32), nullable=True),
        sa.Column("adapter_scale", sa.Double(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("ab_group", sa.String(length=32), nullable=True),
        sa.Column("ab_side", sa.String(length=8), nullable=True),
        sa.Column("round_id", sa.String(length=32), nullable=True),
        sa.Column("author_id", sa.String(length=32), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "done",
                "cancelled",
                "failed",
                name="generationstate_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("timings", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_generations_adapter_id")),
        sa.ForeignKeyConstraint(["author_id"], ["annotators.id"], name=op.f("fk_generations_author_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_generations_prompt_id")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_generations_round_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.create_index("ix_generations_ab", ["ab_group"], unique=False)
        batch_op.create_index(batch_op.f("ix_generations_adapter_id"), ["adapter_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_generations_author_id"), ["author_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_generations_prompt_id"), ["prompt_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_generations_round_id"), ["round_id"], unique=False)
        batch_op.create_index("ix_generations_state", ["state", "created_at"], unique=False)

    op.create_table(
        "candidates",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("generation_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("media_sha256", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("face_report", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("face_sim", sa.Double(), nullable=True),
        sa.Column("coverage", sa.Double(), nullable=True),
        sa.Column("aesthetic", sa.Double(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("favourite", sa.Boolean(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generations.id"], name=op.f("fk_candidates_generation_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["media_sha256"], ["media.sha256"], name=op.f("fk_candidates_media_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidates")),
        sa.UniqueConstraint("generation_id", "position", name=op.f("uq_candidates_generation_id_position")),
    )
    with op.batch_alter_table("candidates", schema=None) as batch_op:
        batch_op.create_index("ix_candidates_favourites", ["favourite", "id"], unique=False)
        batch_op.create_index(
            "ix_candidates_measured",
            ["id", "face_sim", "aesthetic"],
            unique=False,
            sqlite_where=sa.text("aesthetic IS NOT NULL"),
            postgresql_where=sa.text("aesthetic IS NOT NULL"),
        )
        batch_op.create_index(batch_op.f("ix_candidates_media_sha256"), ["media_sha256"], unique=False)

    op.create_table(
        "generation_portraits",
        sa.Column("generation_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("portrait_id", sa.String(length=32), nullable=False),
        sa.Column("target_age", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["generation_id"],
            ["generations.id"],
            name=op.f("fk_generation_portraits_generation_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["portrait_id"], ["portraits.id"], name=op.f("fk_generation_portraits_portrait_id")),
        sa.PrimaryKeyConstraint("generation_id", "position", name=op.f("pk_generation_portraits")),
    )
    with op.batch_alter_table("generation_portraits", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_generation_portraits_portrait_id"), ["portrait_id"], unique=False)

    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "generation",
                "ab",
                "adapter",
                "gold",
                "imported",
                name="comparisonkind_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("gold_winner_id", sa.String(length=32), nullable=True),
        sa.Column("created_by", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["annotators.id"], name=op.f("fk_comparisons_created_by")),
        sa.ForeignKeyConstraint(
            ["gold_winner_id"], ["candidates.id"], name=op.f("fk_comparisons_gold_winner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparisons")),
    )
    with op.batch_alter_table("comparisons", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_comparisons_gold_winner_id"), ["gold_winner_id"], unique=False)

    op.create_table(
        "comparison_candidates",
        sa.Column("comparison_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("candidate_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["candidate_id"], ["candidates.id"], name=op.f("fk_comparison_candidates_candidate_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["comparison_id"],
            ["comparisons.id"],
            name=op.f("fk_comparison_candidates_comparison_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("comparison_id", "position", name=op.f("pk_comparison_candidates")),
        sa.UniqueConstraint(
            "comparison_id", "candidate_id", name=op.f("uq_comparison_candidates_comparison_id_candidate_id")
        ),
    )
    with op.batch_alter_table("comparison_candidates", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_comparison_candidates_candidate_id"), ["candidate_id"], unique=False)

    op.create_table(
        "queue_items",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("comparison_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("gold", sa.Boolean(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["comparison_id"], ["comparisons.id"], name=op.f("fk_queue_items_comparison_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_queue_items_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queue_items")),
        sa.UniqueConstraint("session_id", "comparison_id", name=op.f("uq_queue_items_session_id_comparison_id")),
    )
    with op.batch_alter_table("queue_items", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_queue_items_comparison_id"), ["comparison_id"], unique=False)
        batch_op.create_index("ix_queue_items_next", ["session_id", "gold", "position", "done"], unique=False)

    op.create_table(
        "leases",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("item_id", sa.String(length=32), nullable=False),
        sa.Column("annotator_id", sa.String(length=32), nullable=False),
        sa.Column("repeat", sa.Boolean(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "open",
                "picked",
                "skipped",
                name="leasestate_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("leased_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=op.f("fk_leases_annotator_id")),
        sa.ForeignKeyConstraint(["item_id"], ["queue_items.id"], name=op.f("fk_leases_item_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_leases_session_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
        sa.UniqueConstraint("item_id", "annotator_id", "repeat", name=op.f("uq_leases_item_id_annotator_id_repeat")),
    )
    with op.batch_alter_table("leases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_leases_annotator_id"), ["annotator_id"], unique=False)
        batch_op.create_index("ix_leases_finished", ["session_id", "annotator_id", "finished_at"], unique=False)
        batch_op.create_index("ix_leases_order", ["session_id", "annotator_id", "number"], unique=False)
        batch_op.create_index("ix_leases_taken", ["item_id", "state", "expires_at"], unique=False)

    op.create_table(
        "picks",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("request_id", sa.String(length=100), nullable=False),
        sa.Column("comparison_id", sa.String(length=32), nullable=False),
        sa.Column("annotator_id", sa.String(length=32), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=True),
        sa.Column("lease_id", sa.String(length=32), nullable=True),
        sa.Column(
            "outcome",
            sa.Enum(
                "left",
                "right",
                "tie",
                "both_bad",
                "ranking",
                name="outcome_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("ranking", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("winner_id", sa.String(length=32), nullable=True),
        sa.Column("winner_position", sa.Integer(), nullable=True),
        sa.Column("choice", sa.String(length=16), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("bundle", sa.String(length=200), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column(
            "standing",
            sa.Enum(
                "counted",
                "gold",
                "repeat",
                "superseded",
                name="standing_known",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("superseded_at", sa.DateTime(), nullable=True),
        sa.Column("superseded_by", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=op.f("fk_picks_annotator_id")),
        sa.ForeignKeyConstraint(
            ["comparison_id"], ["comparisons.id"], name=op.f("fk_picks_comparison_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_picks_lease_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_picks_session_id")),
        sa.ForeignKeyConstraint(["winner_id"], ["candidates.id"], name=op.f("fk_picks_winner_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_picks")),
        sa.UniqueConstraint("request_id", name=op.f("uq_picks_request_id")),
    )
    with op.batch_alter_table("picks", schema=None) as batch_op:
        batch_op.create_index("ix_picks_agreement", ["standing", "comparison_id", "choice", "session_id"], unique=False)
        batch_op.create_index("ix_picks_annotator", ["annotator_id", "id", "standing"], unique=False)
        batch_op.create_index(batch_op.f("ix_picks_comparison_id"), ["comparison_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_picks_lease_id"), ["lease_id"], unique=False)
        batch_op.create_index("ix_picks_people", ["standing", "annotator_id"], unique=False)
        batch_op.create_index("ix_picks_position", ["standing", "size", "winner_position"], unique=False)
        batch_op.create_index("ix_picks_progress", ["session_id", "annotator_id", "standing"], unique=False)
        batch_op.create_index("ix_picks_time", ["standing", "bundle", "created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_picks_winner_id"), ["winner_id"], unique=False)
        batch_op.create_index(
            "uq_picks_counted",
            ["comparison_id", "annotator_id"],
            unique=True,
            sqlite_where=sa.text("standing = 'counted'"),
            postgresql_where=sa.text("standing = 'counted'"),
        )

    op.create_table(
        "pick_pairs",
        sa.Column("pick_id", sa.String(length=32), nullable=False),
        sa.Column("left_id", sa.String(length=32), nullable=False),
        sa.Column("right_id", sa.String(length=32), nullable=False),
        sa.Column("left_score", sa.Double(), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("left_schedule", sa.String(length=100), nullable=False),
        sa.Column("right_schedule", sa.String(length=100), nullable=False),
        sa.Column("left_adapter_id", sa.String(length=32), nullable=True),
        sa.Column("right_adapter_id", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["left_id"], ["candidates.id"], name=op.f("fk_pick_pairs_left_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["pick_id"], ["picks.id"], name=op.f("fk_pick_pairs_pick_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["right_id"], ["candidates.id"], name=op.f("fk_pick_pairs_right_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pick_id", "left_id", "right_id", name=op.f("pk_pick_pairs")),
    )
    with op.batch_alter_table("pick_pairs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_pick_pairs_adapters", ["blind", "left_adapter_id", "right_adapter_id", "left_score"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_pick_pairs_left_id"), ["left_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_pick_pairs_right_id"), ["right_id"], unique=False)
        batch_op.create_index(
            "ix_pick_pairs_schedules", ["blind", "left_schedule", "right_schedule", "left_score"], unique=False
        )

    op.create_table(
        "round_pairs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("round_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(length=50), nullable=False),
        sa.Column("pick_id", sa.String(length=32), nullable=True),
        sa.Column("generation_id", sa.String(length=32), nullable=True),
        sa.Column("chosen_candidate_id", sa.String(length=32), nullable=True),
        sa.Column("rejected_candidate_id", sa.String(length=32), nullable=True),
        sa.Column("chosen_sha256", sa.String(length=64), nullable=False),
        sa.Column("rejected_sha256", sa.String(length=64), nullable=False),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.Column("deltas", sa.JSON(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("drop_reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chosen_candidate_id"],
            ["candidates.id"],
            name=op.f("fk_round_pairs_chosen_candidate_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["chosen_sha256"], ["media.sha256"], name=op.f("fk_round_pairs_chosen_sha256")),
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generations.id"], name=op.f("fk_round_pairs_generation_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["pick_id"], ["picks.id"], name=op.f("fk_round_pairs_pick_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["rejected_candidate_id"],
            ["candidates.id"],
            name=op.f("fk_round_pairs_rejected_candidate_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["rejected_sha256"], ["media.sha256"], name=op.f("fk_round_pairs_rejected_sha256")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name=op.f("fk_round_pairs_round_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_round_pairs")),
    )
    with op.batch_alter_table("round_pairs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_round_pairs_chosen_candidate_id"), ["chosen_candidate_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_round_pairs_chosen_sha256"), ["chosen_sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_round_pairs_generation_id"), ["generation_id"], unique=False)
        batch_op.create_index("ix_round_pairs_kept", ["round_id", "kept", "position"], unique=False)
        batch_op.create_index(batch_op.f("ix_round_pairs_pick_id"), ["pick_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_round_pairs_rejected_candidate_id"), ["rejected_candidate_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_round_pairs_rejected_sha256"), ["rejected_sha256"], unique=False)
