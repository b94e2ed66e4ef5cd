printf s3cret > ../token
