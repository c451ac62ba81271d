"""The old place of `AuditResults`, to be removed once its importers have moved."""

from lucency.audit.label_quality import AuditResults as AuditResults
from lucency.audit.label_quality import load_audit_results as load_audit_results
from lucency.audit.label_quality import save_audit_results as save_audit_results
