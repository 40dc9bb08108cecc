"""From files to ids: documents, their characters, and the streams that training reads."""
