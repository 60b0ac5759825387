"""Django REST Framework: model serializers, generic views, its own pagination classes."""
