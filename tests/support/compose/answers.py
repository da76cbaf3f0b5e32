"""Exit code 0 if something listens on $PORT."""

import os
import socket

socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), timeout=3).close()
