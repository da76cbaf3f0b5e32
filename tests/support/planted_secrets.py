"""Texts with a secret in them, for each way in which people and programs write one."""

from __future__ import annotations

import base64
import string

from hypothesis import strategies as st

WORD = string.ascii_letters + string.digits + "!#%*+,.:=?@^_~-"
BASE64 = string.ascii_letters + string.digits


def words(least: int = 8, alphabet: str = WORD) -> st.SearchStrategy[str]:
    """Secrets as a shell takes them without quotes. Each begins with letters that are in no other text."""
    return st.text(alphabet, min_size=least, max_size=40).map(lambda text: f"Zq9{text}x")


WITHOUT_QUOTES = (
    "mysql -u root -p{} orders", "mysqldump --password={} orders", "psql 'host=h password={} user=a'",
    "PGPASSWORD={} psql -h db", "export DB_PASSWORD={}", "vault login token={}", "redis-cli -h r -a {} ping",
    "sshpass -p {} ssh host", "curl -u admin:{} https://h/", "curl --user admin:{} h", "app --token {} --verbose",
    "app --api-key={}", "AWS_SECRET_ACCESS_KEY={}", "MYSQL_PWD={} mysqldump x", "Server=h;Uid=sa;Pwd={}",
    "ALTER USER a IDENTIFIED BY {}", "docker login --password {}", "openssl rsa -passin pass:{}", "client_secret={}",
    "sudo mysql -u root -p{}", "docker login -u me -p {} registry.example",
    "aws configure set aws_secret_access_key {}",
    "terraform apply -var 'db_password={}' -target x", "az login --service-principal -u a -p {} --tenant t",
)  # fmt: skip
IN_QUOTES = (
    "CREATE ROLE a PASSWORD '{}'", "ALTER USER a WITH ENCRYPTED PASSWORD '{}' LOGIN",
    "CREATE USER a IDENTIFIED BY '{}'",
    "ALTER USER a IDENTIFIED WITH caching_sha2_password BY '{}'", "SET PASSWORD FOR 'a'@'h' = PASSWORD('{}')",
    "CREATE LOGIN a WITH PASSWORD = N'{}'", "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'a', password '{}')",
    "export DB_PASSWORD='{}'", 'app --password "{}"', '{{"password": "{}", "user": "a"}}', "curl -d 'token={}' h",
    '{{\\"client_secret\\": \\"{}\\"}}', 'curl -u "admin:{}" https://h/', "curl --user 'admin:{}' h",
)  # fmt: skip
BASE64_TEXTS = (
    "curl -H 'Authorization: Bearer {}' h", "Authorization: token {}", "bearer {}", "https://user:{}@host/x",
    "git clone https://u:{}@git.example.com/r.git", "amqp://u:{}@mq:5672/v", "Cookie: session={}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----", "key AKIAIOSFODNN7EXAMPLE secret_key={}",
)  # fmt: skip
KNOWN = (
    "ghp_" + "a1" * 18, "github_pat_" + "a1" * 20, "glpat-" + "a1" * 10, "xoxb-1234567890-abcdef", "hvs." + "Ab1" * 9,
    "sk_live_" + "a1" * 12, "AIza" + "a" * 35, "npm_" + "a1" * 18, "SG." + "a" * 22 + "." + "b" * 43,
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl", "4111 1111 1111 1111",
    "5500-0000-0000-0004", "378282246310005",
    "basic " + base64.b64encode(b"admin:s3cret").decode(),
)  # fmt: skip
"""Secrets that are known by their form alone. The last is not the whole text."""
PERSONAL = (
    "bob@customer.example", "jane.doe+x@mail.customer.co.uk", "+49 30 901820", "+1 (555) 010-1234", "555-010-1234",
    "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432",
)  # fmt: skip
"""What only the level strict removes."""
PLAIN = (
    "ls -la /var/log", "kubectl get secrets -n payments", "mkdir -p /tmp/a", "ssh -p2222 host", "ps -p 1",
    "SELECT password FROM account WHERE id = 7", "ALTER ROLE a PASSWORD NULL", "tar -czf passwords.tar.gz .",
    "arn:aws:secretsmanager:eu-1:1:secret:orders-AbC", "docker run -u 1000:1000 image", "max_tokens=100",
    "basic authentication is off", "bearer of news", "token expired", "https://host:8080/path", "git@host:team/repo",
    "RBAC: allowed by RoleBinding", "2026-03-01T12:00:00.123456789Z", "1700000000000000000", "4111 1111 1111 1112",
    "docker run -p 8080:80 image", "az vm create -p plan", "aws configure set region eu-1", "login -p 7",
    "passwordless login", "PWD=/root make", "mysql -p orders", "--password-stdin", "secretName=db", "token_type=batch",
    "id 123456789012", "6b0c3889.425/9", "550e8400-e29b-41d4-a716-446655440000", "AKIAIOSFODNN7EXAMPLE",
)  # fmt: skip
