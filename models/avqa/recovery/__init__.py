"""What fills in a missing modality: zero fill, RMM, AVR; one file each."""
