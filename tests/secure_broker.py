"""An Apache Kafka broker with a listener for each way to be let in, and the certificates for it, made by openssl."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.kafka_broker import KafkaBroker, free_port

USER, PASSWORD = "needle", "hay&stack-7"
LOCALHOST = "DNS:localhost,IP:127.0.0.1"
# Listener: what it speaks, which certificate it shows.
LISTENERS = {
    "TLS": ("SSL", "server"),
    "MUTUAL": ("SSL", "server"),
    "EXPIRED": ("SSL", "expired"),
    "ELSEWHERE": ("SSL", "elsewhere"),
    "LOGIN": ("SASL_PLAINTEXT", None),
    "LOGINTLS": ("SASL_SSL", "server"),
    "TOKEN": ("SASL_SSL", "server"),
}
LOGINS = "org.apache.kafka.common.security"
JAAS = {
    "plain": f'{LOGINS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
    "scram-sha-256": f"{LOGINS}.scram.ScramLoginModule required;",
    "scram-sha-512": f"{LOGINS}.scram.ScramLoginModule required;",
    "oauthbearer": f'{LOGINS}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
}
MECHANISMS = {
    "LOGIN": ("plain", "scram-sha-256", "scram-sha-512"),
    "LOGINTLS": ("plain", "scram-sha-256", "scram-sha-512"),
    "TOKEN": ("oauthbearer",),
}


def openssl(folder, *words):
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_authority(folder, name):
    openssl(
        folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}",
        "-keyout", f"{name}.key", "-out", f"{name}.pem",
    )  # fmt: skip


def make_certificate(folder, name, authority, *, names=LOCALHOST, days=30):
    """NAME.crt, NAME.key, and both in NAME.pem; ``days`` -1 has expired."""
    (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
    openssl(
        folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
        "-keyout", f"{name}.key", "-out", f"{name}.csr",
    )  # fmt: skip
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
        "-CAcreateserial", "-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.crt",
    )  # fmt: skip
    (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())


def make_certificates(folder):
    folder.mkdir(parents=True)
    make_authority(folder, "authority")
    make_authority(folder, "stranger")
    make_certificate(folder, "server", "authority")
    make_certificate(folder, "expired", "authority", days=-1)
    make_certificate(folder, "elsewhere", "authority", names="DNS:broker.example.org")
    make_certificate(folder, "client", "authority")
    make_certificate(folder, "nobody", "stranger")
    openssl(folder, "rsa", "-aes128", "-passout", "pass:open sesame", "-in", "client.key", "-out", "locked.key")


@dataclass
class SecureBroker:
    """The broker, a port for each listener, and the folder with the certificates."""

    folder: Path
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in LISTENERS})

    def __post_init__(self):
        make_certificates(self.tls)
        scram = (f"{kind}=[name={USER},password={PASSWORD}]" for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512"))
        self.broker = KafkaBroker(
            self.folder / "kafka", format_options=tuple(word for user in scram for word in ("--add-scram", user))
        )
        self.broker.properties = self._properties()

    @property
    def tls(self):
        return self.folder / "tls"

    def address(self, listener):
        return f"localhost:{self.ports[listener]}"

    def _properties(self):
        plain = f"PLAINTEXT://127.0.0.1:{self.broker.port}"
        more = [f"{name}://localhost:{port}" for name, port in self.ports.items()]
        protocols = [f"{name}:{protocol}" for name, (protocol, _) in LISTENERS.items()]
        lines = [
            "listeners=" + ",".join([plain, *more, f"CONTROLLER://127.0.0.1:{self.broker.controller}"]),
            "advertised.listeners=" + ",".join([plain, *more]),
            "listener.security.protocol.map=" + ",".join(["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", *protocols]),
            "inter.broker.listener.name=PLAINTEXT",
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.mutual.ssl.client.auth=required",
            # What nobody has a list for is open to everybody; who comes without a login may do all.
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
            "allow.everyone.if.no.acl.found=true",
        ]
        for name, (_, certificate) in LISTENERS.items():
            own = f"listener.name.{name.lower()}"
            if certificate is not None:
                lines += [
                    f"{own}.ssl.keystore.type=PEM",
                    f"{own}.ssl.keystore.location={self.tls / certificate}.pem",
                    f"{own}.ssl.truststore.type=PEM",
                    f"{own}.ssl.truststore.location={self.tls / 'authority.pem'}",
                ]
            if name in MECHANISMS:
                lines.append(f"{own}.sasl.enabled.mechanisms=" + ",".join(m.upper() for m in MECHANISMS[name]))
                lines += [f"{own}.{mechanism}.sasl.jaas.config={JAAS[mechanism]}" for mechanism in MECHANISMS[name]]
        return "\n".join(lines) + "\n"
