"""A bucket of S3, or of what speaks as it does; needs the extra `s3`, and is imported only where it is in use."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PATIENCE = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"})
# Others than Amazon know neither the newer checksums nor a host name for each bucket.
PLAIN = Config(
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


class Bucket:
    """Files under a prefix; credentials come from where Amazon's own tools take them: variables, a profile, a role."""

    def __init__(self, address: str) -> None:
        """Take `s3://bucket/prefix?endpoint=https://host&region=name`; all but the bucket may be left out."""
        url = urlsplit(address)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        endpoint = asked.get("endpoint")
        config = PATIENCE.merge(PLAIN) if endpoint else PATIENCE
        self.name, self.prefix = url.netloc, unquote(url.path).strip("/")
        self.client = Session().client("s3", endpoint_url=endpoint, region_name=asked.get("region"), config=config)

    def put(self, name: str, content: bytes) -> None:
        with _translated():
            self.client.put_object(Bucket=self.name, Key=self._key(name), Body=content)

    def get(self, name: str) -> bytes | None:
        with _translated():
            try:
                answer = self.client.get_object(Bucket=self.name, Key=self._key(name))
            except self.client.exceptions.NoSuchKey:
                return None
            content: bytes = answer["Body"].read()
            return content

    def delete(self, name: str) -> None:
        with _translated():
            self.client.delete_object(Bucket=self.name, Key=self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".lstrip("/")


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what every place for files raises."""
    try:
        yield
    except ClientError as error:
        raise OSError(error.response.get("Error", {}).get("Code")) from None
    except BotoCoreError as error:
        raise OSError(type(error).__name__) from None
