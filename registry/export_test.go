package registry

// For tests of what has no effect of its own to be seen from outside.
var UploadOffset = uploadOffset
