"""An OpenID provider that this project did not write: Canaille on loopback, with two customers, until it is ended."""

from __future__ import annotations

import json
import os
import sys

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

PASSWORD = "correct horse battery staple"


def main(port: int) -> None:
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # loopback without TLS
    key = RSAKey.generate_key(2048, auto_kid=True)
    app = create_app(
        config={
            "SECRET_KEY": os.urandom(16).hex(),
            "SERVER_NAME": f"127.0.0.1:{port}",
            "PREFERRED_URL_SCHEME": "http",
            "CANAILLE": {
                "DATABASE": "memory",
                "JAVASCRIPT": False,
                "ACL": {"DEFAULT": {"PERMISSIONS": ["use_oidc"]}},
                "LOGGING": {"version": 1, "disable_existing_loggers": True},
            },
            "CANAILLE_OIDC": {"DYNAMIC_CLIENT_REGISTRATION_OPEN": True, "ACTIVE_JWKS": [key.as_dict(private=True)]},
        },
        env_file="",
    )
    with app.app_context():
        for name in ("c-7", "c-8"):
            backend = Backend.instance
            backend.save(
                models.User(
                    user_name=name,
                    formatted_name=name,
                    family_name=name,
                    emails=[f"{name}@example.com"],
                    password=PASSWORD,
                )
            )
    server = make_server("127.0.0.1", port, app, threaded=True)
    print(json.dumps({"issuer": f"http://127.0.0.1:{port}"}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
