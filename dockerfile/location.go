package dockerfile

import "github.com/bobbuild/bob/dockerfile/internal/position"

// Error is a mistake in a Dockerfile, or in how it was asked to be built.
// Every error of this package that concerns the Dockerfile is one, exactly
// once: Err never holds another.
type Error = position.Error

// Location is a range of whole lines of a Dockerfile. It keeps the text alive
// from which [Location.Excerpt] is cut. It is comparable and immutable.
type Location = position.Location
