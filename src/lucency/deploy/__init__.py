"""Out of the laboratory: exported models, a service, a viewer, results as DICOM."""
