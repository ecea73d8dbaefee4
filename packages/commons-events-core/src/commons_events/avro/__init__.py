"""Events as Avro (https://avro.apache.org, specification 1.12); needs the extra ``commons-events-core[avro]``."""

from commons_events.avro._generic import read, write
from commons_events.avro._schema import canonical_form, fingerprint
from commons_events.avro._serializer import AvroSerializer

__all__ = ["AvroSerializer", "canonical_form", "fingerprint", "read", "write"]
