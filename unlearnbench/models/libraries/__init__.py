"""What torchvision, timm and the Hugging Face hub have by name: read from their files, without importing them."""
