"""From events of the outbox to messages that are due: rules, groups, silences, the page budget."""
