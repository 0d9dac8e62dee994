"""The live page itself: plain HTML, CSS and JavaScript (package data), served as they are."""
