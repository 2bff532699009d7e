"""The one voice: evidence → word, sentences, advice."""
