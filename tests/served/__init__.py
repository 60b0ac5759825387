"""The application as gunicorn serves it: several processes, real connections, production settings."""
