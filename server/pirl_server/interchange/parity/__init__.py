"""The model beside recorded numbers of another implementation."""
