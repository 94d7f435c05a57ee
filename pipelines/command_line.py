"""Command lines of ``avmend ingest`` and ``features``; free of torch and Ray, so that help is fast."""

from __future__ import annotations

from pathlib import Path

from configs.command_line import CommandParser
from pipelines.audit.settings import AuditConfig
from pipelines.settings import FeatureConfig, IngestAndExtractConfig, IngestConfig
from shards.command import location

INGEST = """Clips and a manifest to media shards, dataset.json and quarantine.jsonl.

Features are extracted meanwhile where a backbone or weights are given. Run it again after a kill: it goes on where it
was, and ends in the same bytes."""
PLAN = """What ingesting a corpus will take, before it is paid for: shards, bytes, core-hours, price.

Some clips are drawn and ingested here, one after the other; intervals are over these, 95 %."""
MERGE = """The same samples in fewer shards, after many small additions.

DIR stays as it is. Ingestion goes on in NEW, where features are to be extracted anew."""
FEATURES = """Media shards to feature shards, by frozen networks.

Run it again after a kill, or after the media have grown: it makes what is not there."""
AUDIT = "What is wrong with the clips of a corpus, and which of them are the same."
PUBLIC = ("vggish+resnet18", "vggish+clip")


def ingest_parser() -> CommandParser:
    """``avmend ingest --manifest FILE --out DIR key=value ...``."""
    parser = CommandParser("avmend ingest", INGEST, lambda words: {"ingestion": IngestAndExtractConfig})
    parser.add_argument(
        "--manifest", required=True, type=location, metavar="FILE", help=".csv or .jsonl, a row per clip"
    )
    parser.add_argument(
        "--out", required=True, type=location, metavar="DIR", help="or URL of the dataset; also to resume"
    )
    parser.add_argument("--config", metavar="PRESET", help="preset in configs/, or a yaml file")
    parser.add_argument("--retry-quarantined", action="store_true", help="try again what failed before")
    parser.add_argument("--backbone", type=Path, metavar="RUN", help="extract features, too, by this finetune run")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="or by public weights: vggish, resnet18, clip")
    parser.add_argument("--depth", type=int, metavar="K", help="features.depth=K")
    parser.add_argument("--dry-run", action="store_true", help="what would be made or reused, without making it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the config")
    return parser


def plan_parser() -> CommandParser:
    """``avmend plan MANIFEST key=value ...``."""
    parser = CommandParser("avmend plan", PLAN, lambda words: {"ingestion": IngestConfig})
    parser.add_argument("manifest", type=location, metavar="MANIFEST", help=".csv or .jsonl, a row per clip")
    parser.add_argument("--clips", type=int, default=32, metavar="N", help="that are drawn and ingested (default: 32)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    parser.add_argument("--backbone", type=Path, metavar="RUN", help="then extract features by this finetune run")
    parser.add_argument("--depth", type=int, default=0, metavar="K", help="of the features (default: 0)")
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="of Ray's launcher: its workers' time and price")
    parser.add_argument("--price", type=float, metavar="X", help="of an hour of one worker")
    parser.add_argument("--storage-price", type=float, metavar="X", help="of a GB for a month")
    parser.add_argument("--transfer-price", type=float, metavar="X", help="of reading a GB of the sources")
    parser.add_argument("--config", metavar="PRESET", help="preset in configs/, or a yaml file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the ingestion's config")
    return parser


def merge_parser() -> CommandParser:
    """``avmend merge DIR --out NEW``."""
    parser = CommandParser("avmend merge", MERGE)
    parser.add_argument("folder", type=location, metavar="DIR", help="a dataset that 'avmend ingest' has made")
    parser.add_argument("--out", required=True, type=location, metavar="NEW", help="folder of the merged one")
    parser.add_argument("--samples-per-shard", type=int, metavar="N", help="default: as DIR was begun")
    return parser


def features_parser() -> CommandParser:
    """``avmend features --data DIR key=value ...``."""
    parser = CommandParser("avmend features", FEATURES, lambda words: {"extraction": FeatureConfig})
    parser.add_argument("--data", required=True, type=location, metavar="DIR", help="folder or URL of the media shards")
    parser.add_argument("--extractor", metavar="NAME", help=f"tokens (default), cavmae, {', '.join(PUBLIC)}")
    parser.add_argument("--backbone", type=Path, metavar="RUN", help="folder of a finetune run or checkpoint")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of public weights: vggish, resnet18, clip")
    parser.add_argument("--depth", metavar="K", help="encoder blocks that the tokens have passed (default: 0)")
    parser.add_argument("--config", metavar="PRESET", help="preset in configs/, or a yaml file")
    parser.add_argument("--dry-run", action="store_true", help="what would be made or reused, without making it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the config")
    return parser


def audit_parser() -> CommandParser:
    """``avmend audit MANIFEST|SHARDS key=value ...``."""
    parser = CommandParser("avmend audit", AUDIT, lambda words: {"audit": AuditConfig})
    parser.add_argument("source", metavar="MANIFEST|SHARDS", help="a manifest, or media shards, or their URL")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: audit, beside it)")
    parser.add_argument("--config", metavar="PRESET", help="preset in configs/, or a yaml file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="thresholds and other fields")
    return parser
