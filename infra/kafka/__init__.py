"""Kafka behind our ports. All that is known of confluent-kafka lives here; its errors leave as `LogError` or `Fenced`."""
