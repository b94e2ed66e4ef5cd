package executor

import (
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/image"
)

// What options say of images and caches, for who makes them without more to do with those.
type (
	Format          = image.Format
	Annotation      = image.Annotation
	AnnotationPlace = image.AnnotationPlace
	Output          = image.Output
	OutputType      = image.OutputType
	CacheSource     = cache.Source
	CacheTarget     = cache.Target
)

// The values of [AnnotationPlace] and [OutputType].
const (
	OnManifest           = image.OnManifest
	OnManifestDescriptor = image.OnManifestDescriptor
	OnIndex              = image.OnIndex
	OnIndexDescriptor    = image.OnIndexDescriptor

	OutputOCI    = image.OutputOCI
	OutputDocker = image.OutputDocker
	OutputTar    = image.OutputTar
	OutputLocal  = image.OutputLocal
)
