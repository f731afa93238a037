"""The local stack: real Kafka, Redis and DynamoDB Local on loopback, for development, demos and tests.

Nothing here runs in production: there the operator and the platform's own servers take its place. Modules of this
package may use every other package of Psephos; of the product, only the command line uses them.
"""
