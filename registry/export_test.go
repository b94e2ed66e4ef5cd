package registry

// For tests of what has no effect of its own to be seen from outside.
var (
	IsLoopback      = isLoopback
	ParseChallenges = parseChallenges
	RedactText      = redactText
	RetryAfter      = retryAfter
	UploadOffset    = uploadOffset
)
