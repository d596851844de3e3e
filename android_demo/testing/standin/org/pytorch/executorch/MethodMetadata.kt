package org.pytorch.executorch

/** What a method is called and which backends its delegates run on. */
class MethodMetadata internal constructor(val name: String, val backends: Array<String>)
