import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "dev.persona.demo"
    compileSdk = libs.versions.compile.sdk.get().toInt()

    defaultConfig {
        applicationId = "dev.persona.demo"
        minSdk = libs.versions.min.sdk.get().toInt()
        targetSdk = libs.versions.target.sdk.get().toInt()
        versionCode = 1
        versionName = "0.1.0"
    }

    // One libexecutorch.so an AAR: so one flavour a set of backends.
    flavorDimensions += "backend"
    productFlavors {
        create("cpu") {
            dimension = "backend"
            isDefault = true
        }
        create("vulkan") {
            dimension = "backend"
            applicationIdSuffix = ".vulkan"
        }
        create("qnn") {
            dimension = "backend"
            applicationIdSuffix = ".qnn"
            ndk { abiFilters += "arm64-v8a" }
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    // Programs are mapped from files; QNN's libraries must lie as files, too.
    packaging { jniLibs { useLegacyPackaging = true } }

    androidResources { localeFilters += "en" }

    lint {
        warningsAsErrors = true
        abortOnError = true
        // Versions are raised on purpose, not because a newer one exists.
        disable += setOf("AndroidGradlePluginVersion", "GradleDependency", "NewerVersionAvailable", "OldTargetApi")
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_11
        allWarningsAsErrors = true
    }
}

dependencies {
    implementation(project(":core"))
    "cpuImplementation"(libs.executorch.cpu)
    "vulkanImplementation"(libs.executorch.vulkan)
    "qnnImplementation"(libs.executorch.qnn)
}
