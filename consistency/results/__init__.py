"""What a run says: verdict, findings, report, diagnosis."""
