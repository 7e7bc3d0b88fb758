"""CloudFormation templates of all that Tidemark needs on AWS, and their policies as IAM's own JSON: docs/aws.md says how to use them."""
