"""How a message leaves the process: HTTP, e-mail, Kafka, with the guards of each."""
