"""The Lightly API: shapes, transport, one module a resource, workflows, and `ApiWorkflowClient`."""
