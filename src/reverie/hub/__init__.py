"""The Hugging Face Hub: folders of models, recordings and scenes are pushed to it and pulled from it."""
