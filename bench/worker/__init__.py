"""Workers: tasks of which the bench knows what they cost, on the RabbitMQ and the Redis of a deployed stack."""
