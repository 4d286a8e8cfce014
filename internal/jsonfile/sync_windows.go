package jsonfile

// syncDirectory does nothing: Windows opens no directory for writing, and NTFS
// keeps its names in a journal.
func syncDirectory(string) error { return nil }
